"""Reports for people, made from what the platform measures of itself."""

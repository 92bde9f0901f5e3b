"""Stand-ins of the lab for products that no package registry carries; each says so wherever it is asked."""

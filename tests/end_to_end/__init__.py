"""The platform on the lab, used as customers and operators use it."""

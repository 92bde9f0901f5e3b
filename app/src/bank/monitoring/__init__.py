"""What monitoring says about the platform; none of it is money, which knows no floats."""

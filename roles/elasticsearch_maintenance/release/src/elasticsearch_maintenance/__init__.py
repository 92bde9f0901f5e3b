"""Keeps the indices of the platform for as long as was agreed, and takes a snapshot of them every day."""

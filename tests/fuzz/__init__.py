"""Damaged and hostile bytes for everything that reads what others wrote."""

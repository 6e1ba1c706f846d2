"""Backends side by side: whether they agree, and what each costs."""

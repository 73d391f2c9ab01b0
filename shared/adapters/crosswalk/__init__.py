"""Crosswalk maps over databases and CSV files.

Nothing here imports SQLAlchemy or a driver before a map that needs it is asked.
"""

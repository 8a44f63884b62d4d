"""The service: it owns the data (tables, storage, rules) and speaks HTTP at its edge."""

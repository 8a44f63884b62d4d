"""The tables, how they are reached and how they change."""

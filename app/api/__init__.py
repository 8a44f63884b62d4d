"""What every route shares: errors, paging, keys, limits, health."""

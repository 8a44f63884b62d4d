"""The page at `/`: plain files, served as they are; all that it shows comes from the public API."""

"""From a picture to its boxes."""

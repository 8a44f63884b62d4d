"""The process that runs models for `/detect`; the only part of the service's front that loads torch."""

"""Trainings over HTTP: validate the configuration and queue the job."""

"""The service's second door: jobs by Celery, each in a process of its own."""

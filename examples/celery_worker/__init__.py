"""A Celery worker whose tasks count what the business wants to know."""

"""A service for searches and trainings: `python -m search serve`. FastAPI and uvicorn are imported only by `serve`."""

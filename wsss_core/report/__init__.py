"""The HTML page of a run: pictures, charts and tables as text, from arrays and numbers."""

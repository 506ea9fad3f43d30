"""What several steps share: their settings files, what they read, and how they spread over images and processes."""

"""Videos: a file becomes a job, the job makes lines of detections and an annotated video."""

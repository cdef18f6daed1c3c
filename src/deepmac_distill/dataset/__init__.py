"""Tables, no images: what the annotation file says, what the teacher wrote, and the file for the student."""

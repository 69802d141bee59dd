"""nbgrader's settings for a course with these chapters: copy this file beside the course's folder `source`."""

c = get_config()  # noqa: F821  (nbgrader defines it)
c.CourseDirectory.course_id = "compedu"
c.Execute.timeout = 600  # seconds a cell may take
c.Execute.store_widget_state = False  # a stored figure would be 5 MB
c.ClearSolutions.code_stub = {"python": "# YOUR ANSWER HERE"}  # as in compedu/release.py: the chapter runs to its end

"""nbgrader's settings for a course with these chapters: copy this file beside the course's folder `source`.

docs/instructors.md says what they do, and what they cannot do.
"""

from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import Execute

from compedu.grading import ExecuteApart
from compedu.release import STUB, behind, one_place_to_fill, only_whole_marks

c = get_config()  # noqa: F821  (nbgrader defines it)
c.CourseDirectory.course_id = "compedu"
c.Execute.timeout = 600  # seconds a cell may take
c.Execute.store_widget_state = False  # a stored figure would be 5 MB
c.ClearSolutions.code_stub = {"python": STUB}  # nbgrader's own raises: a chapter could not be run to its end
c.GenerateAssignment.preprocessors = [
    only_whole_marks, *behind(GenerateAssignment.preprocessors.default(), "ClearSolutions", one_place_to_fill)
]  # fmt: skip
c.Autograde.autograde_preprocessors = [
    ExecuteApart if step is Execute else step for step in Autograde.autograde_preprocessors.default()
]

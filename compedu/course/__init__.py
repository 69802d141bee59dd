"""Predictions, lab book, and checks with hints: the parts of a course, without widgets, so that grading needs none."""

from compedu.course.checks import check
from compedu.course.lab_book import LabBook
from compedu.course.predictions import Prediction, predict
from compedu.course.source import show

__all__ = ["LabBook", "Prediction", "check", "predict", "show"]

"""Retraining at the rates of the dense training: what it starts from, how long it is, which trainings serve it."""


from support.study_configs import *  # placeholder

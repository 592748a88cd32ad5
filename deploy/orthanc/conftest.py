"""Orthanc alone has the module that its plugins import: what is here is looked at as text."""

collect_ignore = ["forward_stable_studies.py"]

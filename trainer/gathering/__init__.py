"""From a label table and DICOM to a de-identified cohort."""

"""Codes of the audit trail (PS3.16 CIDs 400, 401, 402 and 404; PS3.15 A.5.1.2.4)."""

from typing import Final, NamedTuple


class Code(NamedTuple):
    """A coded value."""

    value: str
    scheme: str
    meaning: str


# What happened (CID 400)
APPLICATION_ACTIVITY: Final = Code("110100", "DCM", "Application Activity")
INSTANCES_ACCESSED: Final = Code("110103", "DCM", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED: Final = Code("110104", "DCM", "DICOM Instances Transferred")
STUDY_DELETED: Final = Code("110105", "DCM", "DICOM Study Deleted")
QUERY: Final = Code("110112", "DCM", "Query")
SECURITY_ALERT: Final = Code("110113", "DCM", "Security Alert")
USER_AUTHENTICATION: Final = Code("110114", "DCM", "User Authentication")

# Of which kind (CID 401)
APPLICATION_START: Final = Code("110120", "DCM", "Application Start")
APPLICATION_STOP: Final = Code("110121", "DCM", "Application Stop")
LOGIN: Final = Code("110122", "DCM", "Login")
LOGOUT: Final = Code("110123", "DCM", "Logout")
NODE_AUTHENTICATION: Final = Code("110126", "DCM", "Node Authentication")
SOFTWARE_CONFIGURATION: Final = Code("110131", "DCM", "Software Configuration")
RESTRICTED_FUNCTION: Final = Code("110132", "DCM", "Use of Restricted Function")
RECORDING_STARTED: Final = Code("110134", "DCM", "Audit Recording Started")
SECURITY_ROLES: Final = Code("110136", "DCM", "Security Roles Changed")
USER_SECURITY: Final = Code("110137", "DCM", "User Security Attributes Changed")

# Who took part, as what (CID 402)
APPLICATION: Final = Code("110150", "DCM", "Application")
APPLICATION_LAUNCHER: Final = Code("110151", "DCM", "Application Launcher")
DESTINATION: Final = Code("110152", "DCM", "Destination Role ID")
SOURCE: Final = Code("110153", "DCM", "Source Role ID")

# What was dealt with, and how it is identified (CID 404, PS3.15 A.5.1.2.4)
STUDY_INSTANCE_UID: Final = Code("110180", "DCM", "Study Instance UID")
SOP_CLASS_UID: Final = Code("110181", "DCM", "SOP Class UID")
NODE_ID: Final = Code("110182", "DCM", "Node ID")
PATIENT_NUMBER: Final = Code("2", "RFC-3881", "Patient Number")

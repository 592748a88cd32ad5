-- Orthanc sends every study to monro once nothing more of it came for StableAge seconds.
--
-- orthanc.json:  "DicomModalities": {"monro": ["MONRO", "listener.hospital", 11112]},
--                "LuaScripts": ["/etc/orthanc/forward-stable-studies.lua"]
--
-- monro's results make a study stable once more, and it is sent again with them: monro knows its own
-- results and every instance that it has, so nothing is analysed twice. The job is asynchronous:
-- Orthanc goes on receiving, and repeats nothing by itself. Where the listener may be away for
-- longer than a job's retries, let monro ask for what it lacks (MONRO_SOURCES).
function OnStableStudy(studyId, tags, metadata)
   local order = '{"Resources": ["' .. studyId .. '"], "Synchronous": false}'
   RestApiPost('/modalities/monro/store', order)
end

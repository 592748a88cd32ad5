"""The console: what the listener knows, as pages for people and as JSON for programs.

gate/           who may come in (on its own)
server.py       its port
app.py          the application
pages.py api.py the pages, and the same as JSON
desk.py         what both are made from, and what both do
worklist.py     which studies there are; latest.py: their order; patients.py: whose they are
study.py        one study; job.py: its jobs; choice.py: its series; chances.py: what a score meant
slices.py       its overlays; document.py: its reports; kept.py: its files; trail.py: who saw it
work.py         queue and workers; bundle_list.py and rollouts.py: bundles; wellbeing.py: health
tester.py       headers that people paste to try the rules
asked.py shown.py  how values are asked for, and how they are written
"""

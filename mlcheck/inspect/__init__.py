"""Facts about an image, and the rules' judgement of them: a folder for each subject.

Facts (`facts.py`) are frozen data without any judgement. Every path in them is absolute *inside the
image* (`/opt/conda/bin/root.exe`). What an image holds may be broken or hostile; a probe that meets
such a thing does not raise, it records a `Problem` in the fact, and a rule decides what it means.
Checks (`checks.py`) are pure functions of facts and profile that answer with a verdict.
"""

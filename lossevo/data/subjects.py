"""Whether cases that count as different subjects may be of one, or those of one of several: their names tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from lossevo.data.scan import CaseFiles, Problem, Scan, warning

# What tells the series of a patient apart in names: 101_t1, 101_t2_SPACE, p7-visit2, sub-01_ses-02_T2w. So many series
# a patient may have; more cases that are called alike have the name of their cohort in common (spine_mri_001).
_SERIES = re.compile(
    r"(.+?)[ _-](?:(?:t1|t2|t2s|t2star|pd|stir|flair|dixon|water|fat|space|tse|ct|mri?)w?"
    r"|(?:ses|session|visit|scan|series|run|time|tp|acq)-?\w*)(?:[ _-].*)?",
    re.IGNORECASE,
)
MOST_SERIES = 10


class CohortWarning(UserWarning):
    """A cohort can be used, but something of it may not be meant."""


def unclear_subjects(scan: Scan) -> Iterator[Problem]:
    """A warning if cases of different subjects have names that differ in nothing but a sequence or visit, and one if
    cases of one have the same ``sub-…`` in names that begin otherwise, as of two sites.
    """
    for subject, (one, *others) in _by_subject(scan).items():
        other = next((case for case in others if _before(subject, case) != _before(subject, one)), None)
        if other is not None:
            yield warning(
                "unclear-subject",
                f"{scan.folder}: {one.case_id} and {other.case_id} count as one patient, {subject}. If each site has "
                f'its own {subject}, say so in dataset.json ("subjects": {{"{one.case_id}": "A-{subject}", …}}) or in '
                "a list with subjects",
            )
            break
    alike: dict[str, list[CaseFiles]] = defaultdict(list)
    for case in scan.cases:
        if match := _SERIES.fullmatch(case.case_id):
            alike[match[1]].append(case)
    unclear = {
        name: cases
        for name, cases in alike.items()
        if len(cases) <= MOST_SERIES and len({case.subject for case in cases}) > 1
    }
    if unclear:
        name, (one, other, *_) = next(iter(unclear.items()))
        yield warning(
            "unclear-subject",
            f"{scan.folder}: {sum(map(len, unclear.values()))} cases have names that differ only in a sequence or "
            f"visit, such as {one.case_id} and {other.case_id}, but count as different subjects. If they are of one "
            f'patient, they leak: say so in dataset.json ("subjects": {{"{one.case_id}": "{name}", …}}) or a CSV list',
        )


def _by_subject(scan: Scan) -> dict[str, list[CaseFiles]]:
    """The cases of each subject that is named as in BIDS in all of them."""
    found: dict[str, list[CaseFiles]] = defaultdict(list)
    for case in scan.cases:
        if case.subject.startswith("sub-") and case.subject in case.case_id:
            found[case.subject].append(case)
    return found


def _before(subject: str, case: CaseFiles) -> str:
    return case.case_id.partition(subject)[0]

"""Cut the committed sample of real orders out of the shared file.

    python -m services.simulators.retail_sample ../shared/data/online-retail-2010-12-to-2011-05.csv.gz \\
        tests/data/online-retail-sample.csv.gz

The sample holds every line of every invoice abroad (any country but the United Kingdom, so also the two names that are
none), and in the file's order domestic sales, each together with the cancellations that undo a part of it, up to 1,500
domestic invoices in all. Lines are copied as they are, refused ones too, so that the sample shows most of the reasons.
The same input gives the same bytes with the same zlib.
"""

from __future__ import annotations

import gzip
import sys
from collections import defaultdict
from pathlib import Path

from services.simulators.retail import read
from services.simulators.retail_csv import lines, records

DOMESTIC_MAX = 1500


def sample(path_in: str | Path, path_out: str | Path, domestic_max: int = DOMESTIC_MAX) -> int:
    """Write the sample as gzip; returns how many lines it has without the header. Raises BadFile for a bad input."""
    cancelled_by: defaultdict[str, list[str]] = defaultdict(list)
    for undo in read(path_in).undos:
        cancelled_by[undo.invoice_no].append(undo.cancellation_no)

    invoice_of: list[str] = []  # of each line, from line 2
    kept: set[str] = set()
    domestic: set[str] = set()
    for record in records(path_in):
        invoice_of.append(record.invoice_no)
        if record.country != "GB":
            kept.add(record.invoice_no)
        elif len(domestic) < domestic_max and not record.cancels and record.invoice_no not in domestic:
            more = domestic.union((record.invoice_no,), cancelled_by[record.invoice_no])
            # One with too many cancellations is left out; a later one fills the place.
            if len(more) <= domestic_max:
                domestic = more
    kept |= domestic

    chosen = [text for number, text in lines(path_in) if number == 1 or invoice_of[number - 2] in kept]
    # A fixed time in the gzip header keeps the bytes the same from run to run.
    Path(path_out).write_bytes(gzip.compress("".join(f"{text}\n" for text in chosen).encode(), 9, mtime=0))
    return len(chosen) - 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m services.simulators.retail_sample IN.csv[.gz] OUT.csv.gz")
    print(f"{sample(sys.argv[1], sys.argv[2])} lines")

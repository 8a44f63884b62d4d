"""A thread in which torch computes with a number of threads of its own.

torch keeps that number for each thread that calls it (OpenMP does), and a new one begins with the number that
was set last, by whomever. So a model that is to have its own number computes in a thread that nobody else
uses, and what is done with its outputs elsewhere goes on with theirs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def thread_of_torch(num_threads: int) -> ThreadPoolExecutor:
    """Return a thread whose torch computes with so many; it ends when nobody has it any more."""
    before = torch.get_num_threads()
    own = ThreadPoolExecutor(1, "torch")
    own.submit(_have, num_threads).result()
    torch.set_num_threads(before)  # for threads that begin after this one
    return own


def _have(num_threads: int) -> None:
    torch.get_num_threads()  # when it is first asked, a thread takes what was set last: not later than now
    torch.set_num_threads(num_threads)

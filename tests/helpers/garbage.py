"""The garbage collector of a test process: off until all tests are collected, and seldom at work then.

Torch, transformers and Prefect are half a million objects that never go, and it would look through all of them again
and again: a sixth of the time of the tests. What tests leave behind is small.
"""

import gc

SELDOM = (20_000, 20, 50)

gc.disable()


def look_seldom() -> None:
    """From here on, and never at what is there by now."""
    gc.freeze()
    gc.set_threshold(*SELDOM)
    gc.enable()

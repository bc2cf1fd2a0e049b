import json
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource
from smtool.training.memory import keep_freed_memory

def pages_mapped():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(2**20) for _ in range(16)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [pages_mapped() for _ in range(3)]
keep_freed_memory()
print(json.dumps([usual, [pages_mapped() for _ in range(3)]]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is configured")
def test_memory_that_was_freed_is_not_mapped_again():
    """Runs in a new process, because tests that train have already changed this one. 16 MiB are 4096 pages."""
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    usual, kept = json.loads(found.stdout)
    assert usual[-1] > 1000
    assert kept[-1] < 100

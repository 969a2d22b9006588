"""What a plugin's author needs to test it, without ftk's source.

    ftk.testing.check_plugin("lora")      # the contract that every plugin keeps; also: ftk plugins check lora

With pytest the fixtures ``ftk_run`` (a tiny run in a temporary folder), ``ftk_cli`` (the command line) and
``fake_plugin`` (a plugin written on the spot) are there as soon as the kernel is installed.
"""

from ftk.testing.check import check_plugin
from ftk.testing.checked import CheckFailed
from ftk.testing.declares import FORBIDDEN
from ftk.testing.fakes import on_path, write_plugin
from ftk.testing.runs import Finished, run_in

__all__ = ["FORBIDDEN", "CheckFailed", "Finished", "check_plugin", "on_path", "run_in", "write_plugin"]

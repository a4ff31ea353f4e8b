"""The kernel "Syft Lab Owner" behaves as a Jupyter kernel should; run with the tests that Jupyter itself gives."""

import unittest

import jupyter_kernel_test
from jupyter_client.kernelspec import KernelSpecManager

NAME = "syft-lab-owner"


def test_the_kernelspec_is_installed_and_loads_the_extension():
    spec = KernelSpecManager().get_kernel_spec(NAME)
    assert spec.display_name == "Syft Lab Owner"
    assert spec.argv[-2:] == ["--ext", "syft_lab"]


class Messages(jupyter_kernel_test.KernelTests):
    kernel_name = NAME
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = (
        {"text": "zi", "matches": {"zip"}},
        {"text": "%owner st", "matches": {"start", "stop", "status"}},
        {"text": "%%remote --us", "matches": {"--use"}},
    )
    complete_code_samples = ("1", "print('hello')", "def f(x):\n  return x*2\n\n\n", "%owner start hospital-a")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = ({"code": "1+2+3", "result": "6"}, {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"})
    code_display_data = ({"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))", "mime": "text/html"},)
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")  # "range" fails on the stock kernel too


def load_tests(loader: unittest.TestLoader, *_: object) -> unittest.TestSuite:
    return loader.loadTestsFromTestCase(Messages)

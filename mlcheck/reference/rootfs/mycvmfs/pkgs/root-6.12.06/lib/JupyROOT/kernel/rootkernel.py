"""Stand-in for ROOT's C++ kernel: understands sequences of declarations, calls and std::cout.

Expressions are evaluated as Python, which agrees with C++ for those that a small test uses.
"""

import re

import ROOT
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

_STATEMENT = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^;"])+')
_SHIFT = re.compile(r'<<(?=(?:[^"]|"(?:\\.|[^"\\])*")*$)')
_HISTOGRAM = re.compile(r"TH1F\s+(\w+)\s*\((.*)\)", re.DOTALL)
_NUMBER = re.compile(r"(?:int|long|float|double|auto)\s+(\w+)\s*=(.*)", re.DOTALL)


class CppKernel(Kernel):
    implementation = "stand-in"
    implementation_version = ROOT.__version__
    banner = "Stand-in for ROOT's C++ kernel"

    def __init__(self, **options):
        super().__init__(**options)
        self.language_info = {
            "name": "c++",
            "mimetype": "text/x-c++src",
            "file_extension": ".C",
        }
        self._names = {"TH1F": ROOT.TH1F}

    def do_execute(self, code, silent, *_, **__):
        try:
            printed = self._run(re.sub(r"^\s*#.*$", "", code, flags=re.MULTILINE))
        except Exception as error:
            said = {"ename": "error", "evalue": str(error), "traceback": [str(error)]}
            self.send_response(self.iopub_socket, "error", said)
            return {"status": "error", "execution_count": self.execution_count, **said}
        if printed and not silent:
            self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": printed})
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "payload": [],
            "user_expressions": {},
        }

    def _run(self, code):
        printed = ""
        for statement in map(str.strip, _STATEMENT.findall(code)):
            if statement.startswith("std::cout"):
                printed += "".join(map(self._text, _SHIFT.split(statement)[1:]))
            elif found := _HISTOGRAM.fullmatch(statement):
                self._names[found[1]] = self._value(f"TH1F({found[2]})")
            elif found := _NUMBER.fullmatch(statement):
                self._names[found[1]] = self._value(found[2])
            elif statement:
                self._value(statement)
        return printed

    def _value(self, expression):
        return eval(re.sub(r"(\d)LL\b", r"\1", expression.strip()), {}, self._names)  # noqa: S307

    def _text(self, expression):
        if expression.strip() == "std::endl":
            return "\n"
        value = self._value(expression)
        return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=CppKernel)

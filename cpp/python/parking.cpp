// What becomes of a thread that is inside this module while the interpreter ends.
//
// When such a thread asks for the GIL, Python up to 3.13 ends it by pthread_exit. glibc then unwinds the thread's
// stack, and that must not reach this module: destructors would drop references to Python objects without the GIL, and
// a noexcept function or catch (...) aborts the process. It does not matter who asked for the GIL: without_gil, NumPy
// after a copy, or Python code that was called from here. So the thread stops for ever where unwinding first meets a
// frame of this module, as threads do in Python 3.14. It holds no lock there, and the process ends without it.
#include <Python.h>
#include <unistd.h>
#include <unwind.h>

namespace {

bool interpreter_is_ending() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0 || Py_IsInitialized() == 0;
#else
  return _Py_IsFinalizing() != 0 || Py_IsInitialized() == 0;
#endif
}

}  // namespace

// The unwinder asks this function about every frame of C++ that has destructors, handlers or noexcept. CMakeLists.txt
// has the linker put __wrap_ in the place of the library's own, in this module alone.
extern "C" {

_Unwind_Reason_Code __real___gxx_personality_v0(int version, _Unwind_Action actions, _Unwind_Exception_Class kind,
                                                _Unwind_Exception* exception, _Unwind_Context* frame);

_Unwind_Reason_Code __wrap___gxx_personality_v0(int version, _Unwind_Action actions, _Unwind_Exception_Class kind,
                                                _Unwind_Exception* exception, _Unwind_Context* frame) {
  if ((actions & _UA_FORCE_UNWIND) != 0 && interpreter_is_ending())
    for (;;) pause();
  return __real___gxx_personality_v0(version, actions, kind, exception, frame);
}

}  // extern "C"

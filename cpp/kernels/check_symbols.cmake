# The fence: fails unless a kernel object defines exactly one symbol that the linker can see, its table, and needs none
# but memcpy and memset. A second one, such as an inline function of a standard header, would be merged with its twin in
# an object compiled for another instruction set, and an old CPU would run the new one's code.
#
# cmake -DNM=nm -DOBJECT=kernels.o -DISA=avx2 -P check_symbols.cmake
execute_process(COMMAND ${NM} -P ${OBJECT} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "fence: ${NM} cannot read ${OBJECT}")
endif()
string(REPLACE "\n" ";" lines "${symbols}")
set(leaks)
set(tables 0)
foreach(line IN LISTS lines)
  if(NOT line MATCHES "^([^ ]+) ([A-Za-z?])")
    continue()
  endif()
  set(name "${CMAKE_MATCH_1}")
  set(kind "${CMAKE_MATCH_2}")
  if(kind STREQUAL "U")
    if(NOT name MATCHES "^_?(memcpy|memset|_GLOBAL_OFFSET_TABLE_)$")
      list(APPEND leaks "needs ${name}")
    endif()
  elseif(name MATCHES "^_?_ZN7normkit[0-9]+kernels_${ISA}E$")
    math(EXPR tables "${tables} + 1")
  elseif(kind MATCHES "^[A-Zuvwi]$")
    list(APPEND leaks "defines ${name} (${kind})")
  endif()
endforeach()
if(leaks OR NOT tables EQUAL 1)
  list(JOIN leaks "\n  " text)
  message(FATAL_ERROR "fence: ${OBJECT} must define normkit::kernels_${ISA} and nothing else, but:\n  ${text}\n"
                      "Keep kernel code in an anonymous namespace and free of the standard library (cpp/kernels/README.md).")
endif()

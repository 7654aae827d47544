# cmake -DIN=… -DOUT=… -DSHARED=… -DCC=… -DAR=… -DNM=… -DOBJCOPY=… -P localise.cmake
#
# Makes the static library OUT from rustc's IN: all that the functions of the header reach, linked into one object whose only
# global names are theirs (those that SHARED exports). Two Rust libraries in one program, or a program with its own OpenBLAS,
# would otherwise meet over hundreds of names.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    list(JOIN ARGV " " line)
    message(FATAL_ERROR "${line}\nfailed (${result}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run("${NM}" -D --defined-only "${SHARED}")
string(REGEX MATCHALL "engine_[A-Za-z0-9_]+" symbols "${output}")
list(REMOVE_DUPLICATES symbols)
if(NOT symbols)
  message(FATAL_ERROR "${SHARED} exports no engine_* function")
endif()
list(TRANSFORM symbols PREPEND "-Wl,-u," OUTPUT_VARIABLE roots)
list(TRANSFORM symbols PREPEND "--keep-global-symbol=" OUTPUT_VARIABLE keep)

set(object "${OUT}.o")
# -r takes from the archive only the members that the roots need.
run("${CC}" -r -nostdlib -fno-lto -Wl,--gc-sections ${roots} -o "${object}" "${IN}")
# Some of the Rust runtime's objects carry LLVM bitcode, joined now and of no use; linker plugins stumble over it.
run("${OBJCOPY}" --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd ${keep} "${object}")
file(REMOVE "${OUT}")
run("${AR}" rcs "${OUT}" "${object}")
file(REMOVE "${object}")

# Which versions take each other's place. Before 1.0 a minor version may change what exists: 0.1 and 0.2 have sonames of
# their own (libduallora.so.0.1, libduallora.so.0.2), and the CMake package of one is refused where the other is asked for.
# From 1.0 on both follow the major version.
# SPDX-License-Identifier: Apache-2.0
function(duallora_abi version soversion compatibility)
  if(NOT version MATCHES "^([0-9]+)\\.([0-9]+)\\.[0-9]+$")
    message(FATAL_ERROR "duallora: \"${version}\" is no version; MAJOR.MINOR.PATCH was expected")
  endif()
  if(CMAKE_MATCH_1 EQUAL 0)
    set(${soversion} 0.${CMAKE_MATCH_2} PARENT_SCOPE)
    set(${compatibility} SameMinorVersion PARENT_SCOPE)
  else()
    set(${soversion} ${CMAKE_MATCH_1} PARENT_SCOPE)
    set(${compatibility} SameMajorVersion PARENT_SCOPE)
  endif()
endfunction()

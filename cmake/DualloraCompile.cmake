# Language, warnings and sanitizers of all our targets. By target, so that nothing of it reaches the project around.
# SPDX-License-Identifier: Apache-2.0

# ThreadSanitizer does not see the locks inside libgomp and would report every parallel loop.
if("thread" IN_LIST DUALLORA_SANITIZE)
  set(DUALLORA_OPENMP OFF)
endif()

function(duallora_compile_options target)
  # Files have static functions of the same name, which a unity build would put together.
  set_target_properties(${target} PROPERTIES
    C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF UNITY_BUILD OFF)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
  if(DUALLORA_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(DUALLORA_SANITIZE)
    string(REPLACE ";" "," sanitizers "${DUALLORA_SANITIZE}")
    target_compile_options(${target} PRIVATE -fsanitize=${sanitizers} -fno-omit-frame-pointer -g)
    target_compile_definitions(${target} PRIVATE DLI_ASSERTIONS) # lib/base/assert.h, also where NDEBUG is set
    target_link_options(${target} PRIVATE -fsanitize=${sanitizers})
    if("undefined" IN_LIST DUALLORA_SANITIZE)
      target_compile_options(${target} PRIVATE -fno-sanitize-recover=undefined)
    endif()
  endif()
endfunction()

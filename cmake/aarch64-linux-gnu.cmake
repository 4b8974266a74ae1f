# 64-bit ARM from another machine: Debian's cross compiler, a folder of arm64 libraries, and qemu to run what was built.
#
#     cmake -S . -B build-aarch64 --toolchain cmake/aarch64-linux-gnu.cmake -DDUALLORA_SYSROOT=/path/of/folder
#
# tests/aarch64.sh makes such a folder.
# SPDX-License-Identifier: Apache-2.0
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(DUALLORA_SYSROOT "" CACHE PATH "Folder that has usr/include and usr/lib/aarch64-linux-gnu")
if(NOT EXISTS "${DUALLORA_SYSROOT}/usr/include")
  message(FATAL_ERROR "duallora: DUALLORA_SYSROOT is \"${DUALLORA_SYSROOT}\", which has no usr/include; tests/aarch64.sh makes one")
endif()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DUALLORA_SYSROOT)
set(CMAKE_SYSROOT "${DUALLORA_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(DUALLORA_QEMU NAMES qemu-aarch64-static qemu-aarch64 DOC "Runs programs of 64-bit ARM")
if(DUALLORA_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${DUALLORA_QEMU};-L;${DUALLORA_SYSROOT}")
endif()

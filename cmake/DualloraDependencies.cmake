# What duallora links, as targets that need no compiler for C: duallora_dependency::blas (CBLAS and LAPACK),
# duallora_dependency::cjson and duallora_dependency::openmp, which is empty without OpenMP. Used by the build, which sets
# duallora_building and gets folders of headers too, and by the installed package of a static library, which sets
# DUALLORA_BLAS. Both set the variables duallora_openmp_... first. What is not there is told in duallora_missing.
# SPDX-License-Identifier: Apache-2.0

set(duallora_missing "")
set(duallora_visibility "")
if(duallora_building)
  # Seen where the program is linked, which is not below this project.
  set(duallora_visibility GLOBAL)
endif()

# duallora_find_dependency(SETTING library header [folder ...]) sets SETTING_LIBRARY and, for the build,
# SETTING_INCLUDE_DIR unless they are set, and duallora_found.
macro(duallora_find_dependency setting library header)
  # A library that is given may be a list: an archive and what that needs.
  if(NOT ${setting}_LIBRARY)
    # No PATH_SUFFIXES: the plain name is the flavour (OpenMP, pthread) that the system's alternatives choose, which is
    # also the one found at run time.
    find_library(${setting}_LIBRARY ${library} DOC "The library ${library}")
  endif()
  mark_as_advanced(${setting}_LIBRARY)
  set(duallora_found OFF)
  if(${setting}_LIBRARY)
    set(duallora_found ON)
  endif()
  if(duallora_building AND NOT "${header}" STREQUAL "")
    if(NOT EXISTS "${${setting}_INCLUDE_DIR}/${header}")
      unset(${setting}_INCLUDE_DIR CACHE) # of an earlier configuration
    endif()
    find_path(${setting}_INCLUDE_DIR ${header} PATH_SUFFIXES ${ARGN} DOC "Folder that has ${header}")
    mark_as_advanced(${setting}_INCLUDE_DIR)
    if(NOT ${setting}_INCLUDE_DIR)
      set(duallora_found OFF)
    endif()
  endif()
endmacro()

function(duallora_add_dependency name libraries folder)
  add_library(duallora_dependency::${name} INTERFACE IMPORTED ${duallora_visibility})
  target_link_libraries(duallora_dependency::${name} INTERFACE ${libraries})
  if(duallora_building AND folder)
    target_include_directories(duallora_dependency::${name} INTERFACE ${folder})
  endif()
endfunction()

if(NOT TARGET duallora_dependency::blas)
  if(DUALLORA_BLAS STREQUAL "OpenBLAS")
    duallora_find_dependency(DUALLORA_OPENBLAS openblas openblas_config.h
      openblas openblas-openmp openblas-pthread openblas-serial)
    if(duallora_found)
      duallora_add_dependency(blas "${DUALLORA_OPENBLAS_LIBRARY}" "${DUALLORA_OPENBLAS_INCLUDE_DIR}")
      # Weak references fetch nothing out of an archive: ours to what tells OpenBLAS' flavour, and those of libgfortran.a,
      # which calls them when the program ends.
      set(duallora_blas_flags "")
      if("${DUALLORA_OPENBLAS_LIBRARY}" MATCHES "\\.a(;|$)")
        set(duallora_blas_flags openblas_get_config openblas_get_parallel
          pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock)
        list(TRANSFORM duallora_blas_flags PREPEND "-Wl,-u,")
      endif()
      target_link_options(duallora_dependency::blas INTERFACE ${duallora_blas_flags})
    else()
      list(APPEND duallora_missing "OpenBLAS not found (Debian: libopenblas-openmp-dev or libopenblas-dev)")
    endif()
  elseif(DUALLORA_BLAS STREQUAL "BLIS")
    duallora_find_dependency(DUALLORA_LAPACK lapack "")
    set(duallora_lapack_found ${duallora_found})
    duallora_find_dependency(DUALLORA_BLIS blis blis.h blis-openmp blis-pthread blis-serial blis)
    if(duallora_found AND duallora_lapack_found)
      duallora_add_dependency(blas "${DUALLORA_BLIS_LIBRARY};${DUALLORA_LAPACK_LIBRARY}" "${DUALLORA_BLIS_INCLUDE_DIR}")
    else()
      list(APPEND duallora_missing "BLIS or LAPACK not found (Debian: libblis-dev and liblapack-dev)")
    endif()
  else()
    list(APPEND duallora_missing "DUALLORA_BLAS is \"${DUALLORA_BLAS}\"; it must be OpenBLAS or BLIS")
  endif()
endif()

# The project around may bring its own cJSON: the target that it names, or one of the usual names.
if(NOT TARGET duallora_dependency::cjson)
  set(duallora_cjson_target "")
  if(DUALLORA_CJSON_TARGET)
    if(TARGET ${DUALLORA_CJSON_TARGET})
      set(duallora_cjson_target ${DUALLORA_CJSON_TARGET})
    else()
      list(APPEND duallora_missing
        "DUALLORA_CJSON_TARGET is \"${DUALLORA_CJSON_TARGET}\", which is no target; define it before duallora is added")
    endif()
  else()
    foreach(name cJSON::cJSON cjson::cjson cjson)
      if(TARGET ${name})
        set(duallora_cjson_target ${name})
        break()
      endif()
    endforeach()
  endif()
  if(duallora_cjson_target)
    duallora_add_dependency(cjson ${duallora_cjson_target} "")
  elseif(NOT DUALLORA_CJSON_TARGET)
    duallora_find_dependency(DUALLORA_CJSON cjson cJSON.h cjson)
    if(duallora_found)
      duallora_add_dependency(cjson "${DUALLORA_CJSON_LIBRARY}" "${DUALLORA_CJSON_INCLUDE_DIR}")
    else()
      list(APPEND duallora_missing "cJSON not found (Debian: libcjson-dev); or name your own in DUALLORA_CJSON_TARGET")
    endif()
  endif()
endif()

# By name, not by file or by FindOpenMP's target: those need the language of the library, and a program that is linked
# statically needs the archive beside the shared runtime.
if(NOT TARGET duallora_dependency::openmp)
  duallora_add_dependency(openmp "${duallora_openmp_libraries}" "")
  target_link_directories(duallora_dependency::openmp INTERFACE ${duallora_openmp_folders})
endif()

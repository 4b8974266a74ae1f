# The libraries that duallora links: duallora_dependency::blas (CBLAS and LAPACK), duallora_dependency::cjson and, where
# wanted and present, OpenMP::OpenMP_C. Used by the build, and by the installed package of a static library, which sets
# DUALLORA_BLAS and DUALLORA_OPENMP first.

include(FindPackageHandleStandardArgs)

if(NOT TARGET duallora_dependency::blas)
  add_library(duallora_dependency::blas INTERFACE IMPORTED)
  if(DUALLORA_BLAS STREQUAL "OpenBLAS")
    # No PATH_SUFFIXES for the libraries: the plain name is the flavour (OpenMP, pthread) that the system's alternatives
    # choose, which is also the one found at run time.
    find_library(DUALLORA_OPENBLAS_LIBRARY openblas DOC "OpenBLAS, with LAPACK inside")
    find_path(DUALLORA_OPENBLAS_INCLUDE_DIR openblas_config.h
      PATH_SUFFIXES openblas openblas-openmp openblas-pthread openblas-serial DOC "Folder of OpenBLAS' cblas.h")
    if(NOT DUALLORA_OPENBLAS_LIBRARY OR NOT DUALLORA_OPENBLAS_INCLUDE_DIR)
      message(FATAL_ERROR "duallora: OpenBLAS not found (Debian: libopenblas-openmp-dev or libopenblas-dev)")
    endif()
    target_include_directories(duallora_dependency::blas INTERFACE ${DUALLORA_OPENBLAS_INCLUDE_DIR})
    target_link_libraries(duallora_dependency::blas INTERFACE ${DUALLORA_OPENBLAS_LIBRARY})
    set(duallora_blas_libs "-lopenblas")
  elseif(DUALLORA_BLAS STREQUAL "BLIS")
    find_library(DUALLORA_BLIS_LIBRARY blis DOC "BLIS, with CBLAS inside")
    find_path(DUALLORA_BLIS_INCLUDE_DIR NAMES blis.h
      PATH_SUFFIXES blis-openmp blis-pthread blis-serial blis DOC "Folder of BLIS' cblas.h")
    find_library(DUALLORA_LAPACK_LIBRARY lapack DOC "LAPACK with Fortran symbols")
    if(NOT DUALLORA_BLIS_LIBRARY OR NOT DUALLORA_BLIS_INCLUDE_DIR OR NOT DUALLORA_LAPACK_LIBRARY)
      message(FATAL_ERROR "duallora: BLIS or LAPACK not found (Debian: libblis-dev and liblapack-dev)")
    endif()
    target_include_directories(duallora_dependency::blas INTERFACE ${DUALLORA_BLIS_INCLUDE_DIR})
    target_link_libraries(duallora_dependency::blas INTERFACE ${DUALLORA_BLIS_LIBRARY} ${DUALLORA_LAPACK_LIBRARY})
    set(duallora_blas_libs "-lblis -llapack")
  else()
    message(FATAL_ERROR "duallora: DUALLORA_BLAS is \"${DUALLORA_BLAS}\"; it must be OpenBLAS or BLIS")
  endif()
endif()

if(NOT TARGET duallora_dependency::cjson)
  find_path(DUALLORA_CJSON_INCLUDE_DIR cjson/cJSON.h DOC "Folder that has cjson/cJSON.h")
  find_library(DUALLORA_CJSON_LIBRARY cjson DOC "cJSON")
  if(NOT DUALLORA_CJSON_INCLUDE_DIR OR NOT DUALLORA_CJSON_LIBRARY)
    message(FATAL_ERROR "duallora: cJSON not found (Debian: libcjson-dev)")
  endif()
  add_library(duallora_dependency::cjson INTERFACE IMPORTED)
  target_include_directories(duallora_dependency::cjson INTERFACE ${DUALLORA_CJSON_INCLUDE_DIR})
  target_link_libraries(duallora_dependency::cjson INTERFACE ${DUALLORA_CJSON_LIBRARY})
endif()

if(DUALLORA_OPENMP AND NOT TARGET OpenMP::OpenMP_C)
  find_package(OpenMP COMPONENTS C QUIET)
  if(NOT OpenMP_C_FOUND)
    message(STATUS "duallora: no OpenMP for ${CMAKE_C_COMPILER_ID}; the library's own loops run on one thread")
  endif()
endif()

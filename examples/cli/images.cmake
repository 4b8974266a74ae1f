# What reading image files takes, wherever their readers are compiled: the command, the accuracy bench, the fuzz targets.
# Sets image_sources, image_libraries, image_definitions, and image_libraries_found, which is false without libjpeg, libpng
# or zlib.
# SPDX-License-Identifier: Apache-2.0
set(DUALLORA_WEBP AUTO CACHE STRING "WebP images in the command: ON, OFF, or AUTO where libwebp is found")
set_property(CACHE DUALLORA_WEBP PROPERTY STRINGS AUTO ON OFF)

find_package(JPEG)
find_package(PNG)
find_package(ZLIB)
set(image_libraries_found OFF)
if(JPEG_FOUND AND PNG_FOUND AND ZLIB_FOUND)
  set(image_libraries_found ON)
endif()
set(image_libraries JPEG::JPEG PNG::PNG ZLIB::ZLIB)
set(image_definitions "")
set(image_sources exif.c image_file.c image_jpeg.c image_png.c image_webp.c problem.c utf8.c)
list(TRANSFORM image_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)

if(DUALLORA_WEBP)
  find_path(DUALLORA_WEBP_INCLUDE_DIR webp/demux.h DOC "Folder that has webp/decode.h and webp/demux.h")
  find_library(DUALLORA_WEBP_LIBRARY webp DOC "libwebp")
  find_library(DUALLORA_WEBPDEMUX_LIBRARY webpdemux DOC "libwebpdemux")
  if(DUALLORA_WEBP_INCLUDE_DIR AND DUALLORA_WEBP_LIBRARY AND DUALLORA_WEBPDEMUX_LIBRARY)
    list(APPEND image_libraries ${DUALLORA_WEBPDEMUX_LIBRARY} ${DUALLORA_WEBP_LIBRARY})
    set(image_definitions DUALLORA_CLI_WEBP)
  elseif(NOT DUALLORA_WEBP STREQUAL "AUTO")
    message(FATAL_ERROR "duallora: libwebp not found (Debian: libwebp-dev); or set DUALLORA_WEBP=OFF")
  endif()
endif()

# The core, which knows neither Python nor torch: what the extension and the stand-alone program are built on.
# Included after `project`; options, warnings and standard hold for the including project too.
include(${CMAKE_CURRENT_LIST_DIR}/kernel_sources.cmake)

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

# Off for installs: a new compiler's new warning must not turn a user's fast kernel into the slow fallback. CI turns it on.
option(BITNET_TRAIN_WERROR "treat compiler warnings as errors" OFF)
set(WARNINGS -Wall -Wextra)
if(BITNET_TRAIN_WERROR)
  list(APPEND WARNINGS -Werror)
endif()

# For `scripts/sanitize`: "address,undefined" or "thread". Optimising instrumented templates takes minutes, so most of it
# is left out.
set(BITNET_TRAIN_SANITIZE "" CACHE STRING "sanitizers to build everything with")
set(BITNET_TRAIN_OPTIMISATION -O3 CACHE STRING "level of the core; -O1 compiles in half the time")
set(OPTIMISATION ${BITNET_TRAIN_OPTIMISATION})
if(BITNET_TRAIN_SANITIZE)
  set(OPTIMISATION -O0)
  add_compile_options(-fsanitize=${BITNET_TRAIN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${BITNET_TRAIN_SANITIZE})
endif()

find_package(Threads REQUIRED)

# The files of each family but for its kernels, which kernels.inc lists.
set(SOURCES_attention int8_attention)
set(SOURCES_bandwidth read_bandwidth)
set(SOURCES_core cpu_features isa memory openmp quantize_token spec team)
set(SOURCES_fake_quantize fake_quantize)
set(SOURCES_int8 int8_table)
set(SOURCES_int8_matrix int8_matrix)
set(SOURCES_model attention config float_ops forward generate kv_cache linear model penalties rope sampler weights)
set(SOURCES_pointwise pointwise)
set(SOURCES_products dispatch layout_bits layout_digits layout_nibbles layout_words matrix packing)
set(SOURCES_training attention input_gradient int8_linear int8_transposed latent_streams weight_gradient)

if(NOT MSVC AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
  set(ARCHITECTURE BITNET_X86)
elseif(NOT MSVC AND (CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$" OR CMAKE_OSX_ARCHITECTURES MATCHES "arm64"))
  set(ARCHITECTURE BITNET_ARM64)
endif()

# add_core(<target> <families ...>): a static library of some families, `core` among them.
function(add_core target)
  add_library(${target} STATIC)
  foreach(family IN LISTS ARGN)
    list(TRANSFORM SOURCES_${family} PREPEND ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${family}/ OUTPUT_VARIABLE sources)
    list(TRANSFORM sources APPEND .cpp)
    target_sources(${target} PRIVATE ${sources})
  endforeach()
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${target} PUBLIC ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  target_link_libraries(${target} PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4 /fp:precise)
  else()
    # No fused multiply-add: the floats must equal the contract in reference.py bit for bit.
    target_compile_options(${target} PRIVATE ${WARNINGS} ${OPTIMISATION} -ffp-contract=off)
  endif()
  if(ARCHITECTURE)
    target_compile_definitions(${target} PUBLIC ${ARCHITECTURE}=1)
  endif()
  add_kernel_sources(${target} "${ARCHITECTURE}" ${ARGN})
endfunction()

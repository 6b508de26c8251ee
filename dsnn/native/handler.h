/* What every handler of XLA's typed foreign function interface begins with. */

#ifndef DSNN_HANDLER_H
#define DSNN_HANDLER_H

#include <stddef.h>

#include "xla/ffi/api/c_api.h"

/* What stands at the head of a chain of extensions; version 0.3 of the interface (JAX 0.10) has it by another name. */
#if XLA_FFI_API_MAJOR > 0 || XLA_FFI_API_MINOR > 3
typedef XLA_FFI_InternalExtension Extension;
#else
typedef XLA_FFI_Extension_Base Extension;
#endif

/* XLA asks a handler once which version of the interface it speaks; it is answered here. */
static int is_metadata_query(XLA_FFI_CallFrame *frame) {
  Extension *extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

static XLA_FFI_Error *failure(const XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code, const char *message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message, code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

#endif

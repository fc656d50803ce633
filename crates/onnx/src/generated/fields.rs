// @generated from the same descriptor as onnx.rs (see there): every message's fields, as number, name and, where the
// field holds a message, that message's place in this table. Do not edit it.

use crate::wire::Message;

pub static MESSAGES: &[Message] = &[
    Message { name: "AttributeProto", fields: &[(1, "name", None), (2, "f", None), (3, "i", None), (4, "s", None), (5, "t", Some(14)), (6, "g", Some(13)), (7, "floats", None), (8, "ints", None), (9, "strings", None), (10, "tensors", Some(14)), (11, "graphs", Some(13)), (13, "doc_string", None), (14, "tp", Some(19)), (15, "type_protos", Some(19)), (20, "type", None), (21, "ref_attr_name", None), (22, "sparse_tensor", Some(16)), (23, "sparse_tensors", Some(16)), ] },
    Message { name: "ValueInfoProto", fields: &[(1, "name", None), (2, "type", Some(19)), (3, "doc_string", None), (4, "metadata_props", Some(11)), ] },
    Message { name: "NodeProto", fields: &[(1, "input", None), (2, "output", None), (3, "name", None), (4, "op_type", None), (5, "attribute", Some(0)), (6, "doc_string", None), (7, "domain", None), (8, "overload", None), (9, "metadata_props", Some(11)), (10, "device_configurations", Some(4)), ] },
    Message { name: "IntIntListEntryProto", fields: &[(1, "key", None), (2, "value", None), ] },
    Message { name: "NodeDeviceConfigurationProto", fields: &[(1, "configuration_id", None), (2, "sharding_spec", Some(5)), (3, "pipeline_stage", None), ] },
    Message { name: "ShardingSpecProto", fields: &[(1, "tensor_name", None), (2, "device", None), (3, "index_to_device_group_map", Some(3)), (4, "sharded_dim", Some(6)), ] },
    Message { name: "ShardedDimProto", fields: &[(1, "axis", None), (2, "simple_sharding", Some(7)), ] },
    Message { name: "SimpleShardedDimProto", fields: &[(1, "dim_value", None), (2, "dim_param", None), (3, "num_shards", None), ] },
    Message { name: "TrainingInfoProto", fields: &[(1, "initialization", Some(13)), (2, "algorithm", Some(13)), (3, "initialization_binding", Some(11)), (4, "update_binding", Some(11)), ] },
    Message { name: "ModelProto", fields: &[(1, "ir_version", None), (2, "producer_name", None), (3, "producer_version", None), (4, "domain", None), (5, "model_version", None), (6, "doc_string", None), (7, "graph", Some(13)), (8, "opset_import", Some(26)), (14, "metadata_props", Some(11)), (20, "training_info", Some(8)), (25, "functions", Some(27)), (26, "configuration", Some(10)), ] },
    Message { name: "DeviceConfigurationProto", fields: &[(1, "name", None), (2, "num_devices", None), (3, "device", None), ] },
    Message { name: "StringStringEntryProto", fields: &[(1, "key", None), (2, "value", None), ] },
    Message { name: "TensorAnnotation", fields: &[(1, "tensor_name", None), (2, "quant_parameter_tensor_names", Some(11)), ] },
    Message { name: "GraphProto", fields: &[(1, "node", Some(2)), (2, "name", None), (5, "initializer", Some(14)), (10, "doc_string", None), (11, "input", Some(1)), (12, "output", Some(1)), (13, "value_info", Some(1)), (14, "quantization_annotation", Some(12)), (15, "sparse_initializer", Some(16)), (16, "metadata_props", Some(11)), ] },
    Message { name: "TensorProto", fields: &[(1, "dims", None), (2, "data_type", None), (3, "segment", Some(15)), (4, "float_data", None), (5, "int32_data", None), (6, "string_data", None), (7, "int64_data", None), (8, "name", None), (9, "raw_data", None), (10, "double_data", None), (11, "uint64_data", None), (12, "doc_string", None), (13, "external_data", Some(11)), (14, "data_location", None), (16, "metadata_props", Some(11)), ] },
    Message { name: "TensorProto.Segment", fields: &[(1, "begin", None), (2, "end", None), ] },
    Message { name: "SparseTensorProto", fields: &[(1, "values", Some(14)), (2, "indices", Some(14)), (3, "dims", None), ] },
    Message { name: "TensorShapeProto", fields: &[(1, "dim", Some(18)), ] },
    Message { name: "TensorShapeProto.Dimension", fields: &[(1, "dim_value", None), (2, "dim_param", None), (3, "denotation", None), ] },
    Message { name: "TypeProto", fields: &[(1, "tensor_type", Some(20)), (4, "sequence_type", Some(21)), (5, "map_type", Some(22)), (6, "denotation", None), (7, "opaque_type", Some(25)), (8, "sparse_tensor_type", Some(24)), (9, "optional_type", Some(23)), ] },
    Message { name: "TypeProto.Tensor", fields: &[(1, "elem_type", None), (2, "shape", Some(17)), ] },
    Message { name: "TypeProto.Sequence", fields: &[(1, "elem_type", Some(19)), ] },
    Message { name: "TypeProto.Map", fields: &[(1, "key_type", None), (2, "value_type", Some(19)), ] },
    Message { name: "TypeProto.Optional", fields: &[(1, "elem_type", Some(19)), ] },
    Message { name: "TypeProto.SparseTensor", fields: &[(1, "elem_type", None), (2, "shape", Some(17)), ] },
    Message { name: "TypeProto.Opaque", fields: &[(1, "domain", None), (2, "name", None), ] },
    Message { name: "OperatorSetIdProto", fields: &[(1, "domain", None), (2, "version", None), ] },
    Message { name: "FunctionProto", fields: &[(1, "name", None), (4, "input", None), (5, "output", None), (6, "attribute", None), (7, "node", Some(2)), (8, "doc_string", None), (9, "opset_import", Some(26)), (10, "domain", None), (11, "attribute_proto", Some(0)), (12, "value_info", Some(1)), (13, "overload", None), (14, "metadata_props", Some(11)), ] },
    Message { name: "SequenceProto", fields: &[(1, "name", None), (2, "elem_type", None), (3, "tensor_values", Some(14)), (4, "sparse_tensor_values", Some(16)), (5, "sequence_values", Some(28)), (6, "map_values", Some(29)), (7, "optional_values", Some(30)), ] },
    Message { name: "MapProto", fields: &[(1, "name", None), (2, "key_type", None), (3, "keys", None), (4, "string_keys", None), (5, "values", Some(28)), ] },
    Message { name: "OptionalProto", fields: &[(1, "name", None), (2, "elem_type", None), (3, "tensor_value", Some(14)), (4, "sparse_tensor_value", Some(16)), (5, "sequence_value", Some(28)), (6, "map_value", Some(29)), (7, "optional_value", Some(30)), ] },
];

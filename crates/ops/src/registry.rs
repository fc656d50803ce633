use std::sync::LazyLock;

use isotrace_graph::Node;
use rustc_hash::FxHashMap;

use crate::{OpError, Operator, ops};

/// One supported operator.
#[derive(Debug)]
pub struct Entry {
    /// The domain; empty for ONNX's own.
    pub domain: &'static str,
    /// The operator's name.
    pub op: &'static str,
    /// The first version of the domain's operator set whose meaning `build` knows; it reads later ones from the node.
    pub since: i64,
    /// Parses a node's attributes.
    pub build: fn(&Node) -> Result<Box<dyn Operator>, OpError>,
}

/// The newest version of ONNX's own operator set that was looked at when this table was written.
pub const NEWEST_OPSET: i64 = 28;

const ONNX: &str = "";
const MICROSOFT: &str = "com.microsoft";
const NCHWC: &str = "com.microsoft.nchwc";
pub(crate) const ML: &str = "ai.onnx.ml";

/// The newest version of ai.onnx.ml, likewise.
const NEWEST_ML: i64 = 5;

/// The newest version known of a domain's operator set, where the domain has versions worth the name.
pub fn newest(domain: &str) -> Option<i64> {
    match domain {
        ONNX => Some(NEWEST_OPSET),
        ML => Some(NEWEST_ML),
        _ => None,
    }
}

macro_rules! table {
    ($($domain:ident $op:literal $since:literal => $build:path;)*) => {
        static TABLE: &[Entry] = &[$(Entry { domain: $domain, op: $op, since: $since, build: $build },)*];
    };
}

table! {
    // Arithmetic and comparisons
    ONNX "Abs" 1 => ops::sign::abs;
    ONNX "Add" 1 => ops::arithmetic::add;
    ONNX "And" 1 => ops::logic::and;
    ONNX "BitShift" 11 => ops::bits::shift;
    ONNX "BitwiseAnd" 18 => ops::bits::and;
    ONNX "BitwiseNot" 18 => ops::bits::not;
    ONNX "BitwiseOr" 18 => ops::bits::or;
    ONNX "BitwiseXor" 18 => ops::bits::xor;
    ONNX "Ceil" 1 => ops::round::ceil;
    ONNX "Clip" 1 => ops::clip::build;
    ONNX "Div" 1 => ops::arithmetic::div;
    ONNX "Equal" 1 => ops::compare::equal;
    ONNX "Floor" 1 => ops::round::floor;
    ONNX "Greater" 1 => ops::compare::greater;
    ONNX "GreaterOrEqual" 12 => ops::compare::greater_or_equal;
    ONNX "IsInf" 10 => ops::round::is_inf;
    ONNX "IsNaN" 9 => ops::round::is_nan;
    ONNX "Less" 1 => ops::compare::less;
    ONNX "LessOrEqual" 12 => ops::compare::less_or_equal;
    ONNX "Max" 1 => ops::variadic::max;
    ONNX "Mean" 1 => ops::variadic::mean;
    ONNX "Min" 1 => ops::variadic::min;
    ONNX "Mod" 10 => ops::modulo::build;
    ONNX "Mul" 1 => ops::arithmetic::mul;
    ONNX "Neg" 1 => ops::sign::neg;
    ONNX "Not" 1 => ops::logic::not;
    ONNX "Or" 1 => ops::logic::or;
    ONNX "Pow" 1 => ops::power::build;
    ONNX "Round" 11 => ops::round::round;
    ONNX "Sign" 9 => ops::sign::sign;
    ONNX "Sub" 1 => ops::arithmetic::sub;
    ONNX "Sum" 1 => ops::variadic::sum;
    ONNX "Where" 9 => ops::select::build;
    ONNX "Xor" 1 => ops::logic::xor;

    // Functions of one number, activations
    ONNX "Acos" 7 => ops::unary::acos;
    ONNX "Acosh" 9 => ops::unary::acosh;
    ONNX "Asin" 7 => ops::unary::asin;
    ONNX "Asinh" 9 => ops::unary::asinh;
    ONNX "Atan" 7 => ops::unary::atan;
    ONNX "Atanh" 9 => ops::unary::atanh;
    ONNX "Celu" 12 => ops::activation::celu;
    ONNX "Cos" 7 => ops::unary::cos;
    ONNX "Cosh" 9 => ops::unary::cosh;
    ONNX "Elu" 1 => ops::activation::elu;
    ONNX "Erf" 9 => ops::unary::erf;
    ONNX "Exp" 1 => ops::unary::exp;
    ONNX "Gelu" 20 => ops::gelu::build;
    ONNX "HardSigmoid" 1 => ops::activation::hard_sigmoid;
    ONNX "HardSwish" 14 => ops::activation::hard_swish;
    ONNX "Hardmax" 1 => ops::arg_reduce::hardmax;
    ONNX "LeakyRelu" 1 => ops::activation::leaky_relu;
    ONNX "Log" 1 => ops::unary::log;
    ONNX "Mish" 18 => ops::activation::mish;
    ONNX "PRelu" 1 => ops::prelu::build;
    ONNX "Reciprocal" 1 => ops::unary::reciprocal;
    ONNX "Relu" 1 => ops::activation::relu;
    ONNX "Selu" 1 => ops::activation::selu;
    ONNX "Shrink" 9 => ops::activation::shrink;
    ONNX "Sigmoid" 1 => ops::unary::sigmoid;
    ONNX "Sin" 7 => ops::unary::sin;
    ONNX "Sinh" 9 => ops::unary::sinh;
    ONNX "Softplus" 1 => ops::unary::softplus;
    ONNX "Softsign" 1 => ops::unary::softsign;
    ONNX "Sqrt" 1 => ops::unary::sqrt;
    ONNX "SwiGLU" 28 => ops::swiglu::build;
    ONNX "Swish" 24 => ops::activation::swish;
    ONNX "Tan" 7 => ops::unary::tan;
    ONNX "Tanh" 1 => ops::unary::tanh;
    ONNX "ThresholdedRelu" 10 => ops::activation::thresholded_relu;
    MICROSOFT "BiasGelu" 1 => ops::gelu::erf;
    MICROSOFT "FastGelu" 1 => ops::gelu::tanh;
    MICROSOFT "Gelu" 1 => ops::gelu::erf;
    MICROSOFT "QuickGelu" 1 => ops::activation::quick_gelu;

    // Products, convolutions, pooling
    ONNX "AveragePool" 1 => ops::pool::average;
    ONNX "CausalConvWithState" 27 => ops::causal_conv::build;
    ONNX "Conv" 1 => ops::conv::build;
    ONNX "ConvInteger" 10 => ops::integer::conv_integer;
    ONNX "ConvTranspose" 1 => ops::conv_transpose::build;
    ONNX "DeformConv" 19 => ops::deform_conv::build;
    ONNX "Det" 11 => ops::det::build;
    ONNX "Einsum" 12 => ops::einsum::build;
    ONNX "Gemm" 1 => ops::gemm::build;
    ONNX "GlobalAveragePool" 1 => ops::global_pool::average;
    ONNX "GlobalLpPool" 1 => ops::global_pool::norm;
    ONNX "GlobalMaxPool" 1 => ops::global_pool::max;
    ONNX "LpPool" 1 => ops::pool::norm;
    ONNX "MatMul" 1 => ops::matmul::build;
    ONNX "MatMulInteger" 10 => ops::integer::matmul_integer;
    ONNX "MaxPool" 1 => ops::pool::max;
    ONNX "MaxRoiPool" 1 => ops::max_roi_pool::build;
    ONNX "MaxUnpool" 9 => ops::max_unpool::build;
    ONNX "QLinearConv" 10 => ops::integer::qlinear_conv;
    ONNX "QLinearMatMul" 10 => ops::integer::qlinear_matmul;
    ONNX "AffineGrid" 20 => ops::affine_grid::build;
    ONNX "BlackmanWindow" 17 => ops::fourier::blackman;
    ONNX "DFT" 17 => ops::fourier::dft;
    ONNX "GridSample" 16 => ops::grid_sample::build;
    ONNX "HammingWindow" 17 => ops::fourier::hamming;
    ONNX "HannWindow" 17 => ops::fourier::hann;
    ONNX "MelWeightMatrix" 17 => ops::mel::build;
    ONNX "Resize" 10 => ops::resize::build;
    ONNX "RoiAlign" 10 => ops::roi_align::build;
    ONNX "STFT" 17 => ops::fourier::stft;
    ONNX "Upsample" 1 => ops::resize::upsample;

    // Reductions, normalisations, attention
    ONNX "ArgMax" 1 => ops::arg_reduce::max;
    ONNX "ArgMin" 1 => ops::arg_reduce::min;
    ONNX "Attention" 23 => ops::attention::build;
    ONNX "BatchNormalization" 1 => ops::batch_norm::build;
    ONNX "CumProd" 26 => ops::cumulative::product;
    ONNX "CumSum" 11 => ops::cumulative::sum;
    ONNX "GroupNormalization" 18 => ops::group_norm::group;
    ONNX "InstanceNormalization" 1 => ops::group_norm::instance;
    ONNX "LRN" 1 => ops::row_norm::lrn;
    ONNX "LayerNormalization" 1 => ops::layer_norm::layer;
    ONNX "LinearAttention" 27 => ops::linear_attention::build;
    ONNX "LogSoftmax" 1 => ops::softmax::log_softmax;
    ONNX "LpNormalization" 1 => ops::row_norm::lp;
    ONNX "MeanVarianceNormalization" 9 => ops::row_norm::mean_variance;
    ONNX "NegativeLogLikelihoodLoss" 12 => ops::loss::negative_log_likelihood;
    ONNX "RMSNormalization" 23 => ops::layer_norm::rms;
    ONNX "ReduceL1" 1 => ops::reduce::l1;
    ONNX "ReduceL2" 1 => ops::reduce::l2;
    ONNX "ReduceLogSum" 1 => ops::reduce::log_sum;
    ONNX "ReduceLogSumExp" 1 => ops::reduce::log_sum_exp;
    ONNX "ReduceMax" 1 => ops::reduce::max;
    ONNX "ReduceMean" 1 => ops::reduce::mean;
    ONNX "ReduceMin" 1 => ops::reduce::min;
    ONNX "ReduceProd" 1 => ops::reduce::prod;
    ONNX "ReduceSum" 1 => ops::reduce::sum;
    ONNX "ReduceSumSquare" 1 => ops::reduce::sum_square;
    ONNX "RotaryEmbedding" 23 => ops::rotary::build;
    ONNX "SimplifiedLayerNormalization" 1 => ops::layer_norm::simplified;
    ONNX "Softmax" 1 => ops::softmax::softmax;
    ONNX "SoftmaxCrossEntropyLoss" 12 => ops::loss::softmax_cross_entropy;
    MICROSOFT "BiasAdd" 1 => ops::biased::add;
    MICROSOFT "BiasSoftmax" 1 => ops::biased::softmax;
    MICROSOFT "GroupNorm" 1 => ops::group_norm::microsoft;
    MICROSOFT "SimplifiedLayerNormalization" 1 => ops::layer_norm::simplified;
    MICROSOFT "SkipLayerNormalization" 1 => ops::skip_layer_norm::layer;
    MICROSOFT "SkipSimplifiedLayerNormalization" 1 => ops::skip_layer_norm::simplified;

    // Shape and movement
    ONNX "CenterCropPad" 18 => ops::pad::center_crop_pad;
    ONNX "Col2Im" 18 => ops::col2im::build;
    ONNX "Concat" 1 => ops::concat::concat;
    ONNX "DepthToSpace" 1 => ops::depth_space::depth_to_space;
    ONNX "Dropout" 1 => ops::identity::dropout;
    ONNX "Expand" 8 => ops::expand::expand;
    ONNX "Flatten" 1 => ops::reshape::flatten;
    ONNX "Identity" 1 => ops::identity::identity;
    ONNX "Pad" 1 => ops::pad::pad;
    ONNX "Reshape" 1 => ops::reshape::reshape;
    ONNX "ReverseSequence" 10 => ops::compress::reverse_sequence;
    ONNX "Shape" 1 => ops::shape::shape;
    ONNX "Size" 1 => ops::shape::size;
    ONNX "Slice" 1 => ops::slice::build;
    ONNX "SpaceToDepth" 1 => ops::depth_space::space_to_depth;
    ONNX "Split" 1 => ops::concat::split;
    ONNX "Squeeze" 1 => ops::squeeze::squeeze;
    ONNX "Tile" 1 => ops::expand::tile;
    ONNX "Transpose" 1 => ops::transpose::build;
    ONNX "Trilu" 14 => ops::matrix_parts::trilu;
    ONNX "Unsqueeze" 1 => ops::squeeze::unsqueeze;

    // Gather, scatter, selection, order
    ONNX "Compress" 9 => ops::compress::compress;
    ONNX "Gather" 1 => ops::gather::build;
    ONNX "GatherElements" 11 => ops::gather_elements::gather_elements;
    ONNX "GatherND" 11 => ops::gather_elements::gather_nd;
    ONNX "NonMaxSuppression" 10 => ops::non_max_suppression::build;
    ONNX "NonZero" 9 => ops::one_hot::non_zero;
    ONNX "OneHot" 9 => ops::one_hot::one_hot;
    ONNX "Scatter" 9 => ops::scatter::scatter_elements;
    ONNX "ScatterElements" 11 => ops::scatter::scatter_elements;
    ONNX "ScatterND" 11 => ops::scatter::scatter_nd;
    ONNX "TensorScatter" 24 => ops::scatter::tensor_scatter;
    ONNX "TopK" 1 => ops::top_k::build;
    ONNX "Unique" 11 => ops::unique::build;

    // Constants, conversion, random numbers, control flow
    ONNX "Bernoulli" 15 => ops::random_ops::bernoulli;
    ONNX "BitCast" 26 => ops::cast::bit_cast;
    ONNX "Cast" 1 => ops::cast::cast;
    ONNX "CastLike" 15 => ops::cast::cast_like;
    ONNX "Constant" 1 => ops::constant::constant;
    ONNX "ConstantOfShape" 9 => ops::constant::constant_of_shape;
    ONNX "EyeLike" 9 => ops::matrix_parts::eye_like;
    ONNX "If" 1 => ops::control::if_else;
    ONNX "Loop" 1 => ops::control::repeat;
    ONNX "Multinomial" 7 => ops::random_ops::multinomial;
    ONNX "RandomNormal" 1 => ops::random_ops::random_normal;
    ONNX "RandomNormalLike" 1 => ops::random_ops::random_normal_like;
    ONNX "RandomUniform" 1 => ops::random_ops::random_uniform;
    ONNX "RandomUniformLike" 1 => ops::random_ops::random_uniform_like;
    ONNX "Range" 11 => ops::range::build;
    ONNX "Scan" 8 => ops::scan::build;

    // Recurrent
    ONNX "GRU" 1 => ops::recurrent::gru;
    ONNX "LSTM" 1 => ops::recurrent::lstm;
    ONNX "RNN" 1 => ops::recurrent::rnn;

    // Quantisation
    ONNX "DequantizeLinear" 10 => ops::quantize::dequantize;
    ONNX "DynamicQuantizeLinear" 11 => ops::dynamic_quantize::build;
    ONNX "QuantizeLinear" 10 => ops::quantize::quantize;
    MICROSOFT "DequantizeLinear" 1 => ops::quantize::dequantize;
    MICROSOFT "DynamicQuantizeMatMul" 1 => ops::matmul_integer_to_float::dynamic;
    MICROSOFT "MatMulIntegerToFloat" 1 => ops::matmul_integer_to_float::build;
    MICROSOFT "NhwcMaxPool" 1 => ops::channels_last::max_pool;
    MICROSOFT "QAttention" 1 => ops::dequantised::attention;
    MICROSOFT "QEmbedLayerNormalization" 1 => ops::dequantised::embed_layer_norm;
    MICROSOFT "QGemm" 1 => ops::qgemm::build;
    MICROSOFT "QLinearAdd" 1 => ops::qlinear_binary::add;
    MICROSOFT "QLinearAveragePool" 1 => ops::qlinear_pool::average;
    MICROSOFT "QLinearConcat" 1 => ops::qlinear_table::concat;
    MICROSOFT "QLinearConv" 1 => ops::channels_last::qlinear_conv;
    MICROSOFT "QLinearGlobalAveragePool" 1 => ops::qlinear_pool::global_average;
    MICROSOFT "QLinearLeakyRelu" 1 => ops::qlinear_table::leaky_relu;
    MICROSOFT "QLinearMul" 1 => ops::qlinear_binary::mul;
    MICROSOFT "QLinearSigmoid" 1 => ops::qlinear_table::sigmoid;
    MICROSOFT "QLinearSoftmax" 1 => ops::qlinear_softmax::build;
    MICROSOFT "QLinearWhere" 1 => ops::qlinear_table::select;
    MICROSOFT "QuantizeLinear" 1 => ops::quantize::quantize;

    // ai.onnx.ml: classifiers and regressors that are no networks
    ML "ArrayFeatureExtractor" 1 => ops::ml::feature::extractor;
    ML "Binarizer" 1 => ops::ml::scaler::binarizer;
    ML "CategoryMapper" 1 => ops::ml::label::category_mapper;
    ML "FeatureVectorizer" 1 => ops::ml::feature::vectorizer;
    ML "Imputer" 1 => ops::ml::scaler::imputer;
    ML "LabelEncoder" 1 => ops::ml::label::label_encoder;
    ML "LinearClassifier" 1 => ops::ml::linear::classifier;
    ML "LinearRegressor" 1 => ops::ml::linear::regressor;
    ML "Normalizer" 1 => ops::ml::normalizer::build;
    ML "OneHotEncoder" 1 => ops::ml::feature::one_hot_encoder;
    ML "SVMClassifier" 1 => ops::ml::svm::classifier;
    ML "SVMRegressor" 1 => ops::ml::svm::regressor;
    ML "Scaler" 1 => ops::ml::scaler::scaler;
    ML "TreeEnsemble" 5 => ops::ml::tree::ensemble;
    ML "TreeEnsembleClassifier" 1 => ops::ml::tree::classifier;
    ML "TreeEnsembleRegressor" 1 => ops::ml::tree::regressor;
    ML "ZipMap" 1 => ops::ml::zip_map::build;

    // com.microsoft and its kin: what ONNX Runtime's optimiser writes
    MICROSOFT "Attention" 1 => ops::multi_head_attention::attention;
    MICROSOFT "EmbedLayerNormalization" 1 => ops::embed_layer_norm::build;
    MICROSOFT "FusedConv" 1 => ops::conv::build_fused;
    MICROSOFT "FusedGemm" 1 => ops::gemm::build_fused;
    MICROSOFT "FusedMatMul" 1 => ops::fused_matmul::build;
    MICROSOFT "GroupQueryAttention" 1 => ops::group_query_attention::build;
    MICROSOFT "MatMulNBits" 1 => ops::matmul_nbits::build;
    MICROSOFT "MultiHeadAttention" 1 => ops::multi_head_attention::multi_head;
    MICROSOFT "RotaryEmbedding" 1 => ops::rotary::build_contrib;
    MICROSOFT "TransposeMatMul" 1 => ops::fused_matmul::build;
    NCHWC "AveragePool" 1 => ops::pool::average;
    NCHWC "Conv" 1 => ops::nchwc::conv;
    NCHWC "GlobalAveragePool" 1 => ops::global_pool::average;
    NCHWC "GlobalMaxPool" 1 => ops::global_pool::max;
    NCHWC "MaxPool" 1 => ops::pool::max;
    NCHWC "ReorderInput" 1 => ops::nchwc::reorder_input;
    NCHWC "ReorderOutput" 1 => ops::nchwc::reorder_output;
    NCHWC "Upsample" 1 => ops::resize::upsample_blocked;
}

/// Every supported operator, in the order of the table.
pub fn entries() -> &'static [Entry] {
    TABLE
}

/// The table by domain and operator.
static BY_NAME: LazyLock<FxHashMap<(&str, &str), &Entry>> =
    LazyLock::new(|| TABLE.iter().map(|e| ((e.domain, e.op), e)).collect());

/// Builds the operator of a node, or says what it would take.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    if node.domain == ops::opaque::DOMAIN {
        return Ok(ops::opaque::build(node));
    }
    // A file may spell ONNX's own domain either way.
    let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
    let unsupported = |remedy: String| OpError::Unsupported {
        op: node.op.clone(),
        domain: node.domain.clone(),
        version: node.version,
        remedy,
    };
    let Some(entry) = BY_NAME.get(&(domain, node.op.as_str())) else {
        let elsewhere: Vec<&str> = TABLE.iter().filter(|e| e.op == node.op).map(|e| e.domain).collect();
        return Err(unsupported(match elsewhere.first() {
            Some(other) => format!("an operator of this name exists in domain {other:?}: is the node's domain right?"),
            None => "it needs a kernel, a budget and a line in the registry (ARCHITECTURE.md, \"A new operator\"); \
                     `isotrace ops` lists what there is"
                .to_owned(),
        }));
    };
    let newest = newest(domain).unwrap_or(i64::MAX);
    if node.version < entry.since || node.version > newest {
        return Err(unsupported(format!(
            "versions {} to {newest} are: convert the model with onnx.version_converter",
            entry.since
        )));
    }
    (entry.build)(node)
}

"""Predict a table of photographs with Daft: python daft_predict.py RUN TABLE.parquet OUTPUT"""

import sys

import daft
import pyarrow as pa

from ramstrans.inference import BatchPredictor

run, table, output = sys.argv[1:4]
predictor = BatchPredictor(run)


@daft.func.batch(return_dtype=daft.DataType.from_arrow_type(pa.struct(predictor.schema)), unnest=True)
def predict(path):
    return pa.RecordBatch.from_pydict(predictor({"path": path}), predictor.schema).to_struct_array()


daft.read_parquet(table).select(predict(daft.col("path"))).write_parquet(output)
